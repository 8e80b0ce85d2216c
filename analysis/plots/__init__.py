"""Figures of studies: charts as data, and the two backends that draw them."""
