"""Where labelled images come from: the embedded digits, folders, and archives."""
