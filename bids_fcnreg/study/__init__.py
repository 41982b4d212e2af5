"""Study-level results: tables, mean images, outliers, figures and web page."""
