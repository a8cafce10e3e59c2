"""The images of the server: whether there is one of a name, and that none is replaced by another."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore

from kvseg_monai.errors import InputError
from kvseg_monai.label.requests import NotFoundError, refuse_name
from kvseg_monai.utils.records import digest_of

UID = re.compile(r"[0-9.]{1,64}")


def require_image(store: Any, name: Any) -> str:
    """Return the name of an image, or of a series of a DICOM server, that is there.

    Raises:
        NotFoundError: for any other.
    """
    refuse_name(name, "image")
    if not _is_there(store, name):
        raise NotFoundError(f"there is no image {name!r} among the studies; GET /datastore/?output=all lists them")
    return name


def _is_there(store: Any, name: str) -> bool:
    if isinstance(store, DICOMWebDatastore):
        if name in LocalDatastore.list_images(store):
            return True
        found = []
        if UID.fullmatch(name):
            with suppress(OSError, ValueError):  # what the DICOM server does not find
                found = store._client.search_for_series(search_filters={"SeriesInstanceUID": name})
        return any(series["0020000E"]["Value"] == [name] for series in found)
    return name in store.list_images()


def image_file(store: Any, name: Any) -> str:
    """Return the file of an image, or the folder of a series.

    Raises:
        NotFoundError: there is no image of that name, or its file is gone.
    """
    path = store.get_image_uri(require_image(store, name))
    if not path or not Path(path).exists():
        raise NotFoundError(
            f"the file of image {name!r} is gone from the studies; put it back, or choose another image"
        )
    return path


def keep_images(store: Any) -> Any:
    """Return the store, in which an image that is sent never takes the place of another."""
    add = store.add_image

    def add_image(image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        if image_id and image_id in store.list_images():
            there = store.get_image_uri(image_id)
            if not Path(there).is_file() or digest_of(there) != digest_of(image_filename):
                raise InputError(f"there is another image {image_id!r} already; send this one under another name")
            return image_id
        return add(refuse_name(image_id, "image"), image_filename, image_info)

    store.add_image = add_image
    return store
