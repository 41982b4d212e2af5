"""What is computed of a whole study: tables, mean images, outliers, figures, their page."""
