"""What a run writes and shows: folder, tables, pictures, display."""
