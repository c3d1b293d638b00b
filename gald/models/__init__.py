"""Networks: a backbone, a neck with global aggregation then local distribution, and heads."""
