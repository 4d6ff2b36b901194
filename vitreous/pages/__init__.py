"""HTML pages: templates, styles and scripts."""
