"""Numbers and pictures: metrics, statistics, outcomes, the comparison, the report, dashboards."""
