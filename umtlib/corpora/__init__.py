"""Where audio comes from: scores, folders and public data sets, all brought to one format."""
