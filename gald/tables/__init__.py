"""Last stage: the metrics of a suite's runs become tables, plots and one page."""
