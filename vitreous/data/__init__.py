"""From files to batches: sources and their splits, decoding, preprocessing, augmentation, loading."""
