"""Names that files written by version 0.1.0 use, and the names that took their place: old name -> new name."""

METRICS = {  # counts of scans per class in metrics.json
    "missed": "false_negatives",
    "invented": "false_positives",
}

CHECKPOINT = {"rival": "earlier_score"}  # in last.ckpt

METHODS = {"tell": "report"}  # of SkipBadCases, which the configurations of packed bundles call
