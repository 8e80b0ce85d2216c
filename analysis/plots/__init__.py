"""Figures of studies: charts as data, and two backends that draw them."""
