"""Files of tables: rows of text, JSON and Parquet."""
