"""Pure functions from DataFrames to Altair charts. Streamlit's theme brings fonts and the colours of text and grid, so that
one chart is readable in light and dark; data colours are chosen here to stand on both."""
