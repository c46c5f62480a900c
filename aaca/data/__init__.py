"""Images in: tables, benchmarks (one file each), transforms, the data module, the feature store."""
