"""What is computed of a whole study: tables, mean images, outliers, their page."""
