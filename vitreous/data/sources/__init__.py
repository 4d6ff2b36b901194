"""Where labeled images come from: the embedded digits, folders, and archives."""
