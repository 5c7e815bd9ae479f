"""The dialects of the API: requests and answers on the wire, one file per dialect."""
