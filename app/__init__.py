"""The lab in a browser: it reads `runs_db`, asks for new runs, and replays finished ones. No page ever trains.

main.py is what Streamlit runs; a view is one file in views/ and one line of its table; charts/ holds pure functions from
DataFrames to Altair charts. Whatever can be worked out without a browser lives outside of views/ and is tested without one.
"""
