"""Tell how the work goes: topics, tables, rates, estimates, metrics, and the record of the past."""
