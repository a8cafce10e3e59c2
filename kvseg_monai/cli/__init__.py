"""The command ``kvseg``: one name for all that the package does. It imports every room, and none imports it."""
