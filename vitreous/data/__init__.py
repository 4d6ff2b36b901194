"""From files to batches: bounded decoding, sources and their splits, preprocessing, augmentation, loading."""
