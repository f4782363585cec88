"""One short file per experiment; they differ only in what differs."""
