"""The warehouse: dbt over the lake, into one DuckDB file that is swapped whole."""
