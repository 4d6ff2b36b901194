"""Sources of labeled images: the embedded digits, folders and archives."""
