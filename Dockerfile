# docker build -t fairstate . && docker run -p 127.0.0.1:8501:8501 -v fairstate:/data fairstate
FROM python:3.11-slim
WORKDIR /fairstate
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY engine engine
COPY runs_db runs_db
COPY app app
COPY .streamlit .streamlit
RUN useradd --create-home fairstate && mkdir /data && chown fairstate /data
USER fairstate
# Inside a container the app must listen on all addresses; which ones reach it is the publisher's choice (-p above).
ENV RUNS_DIR=/data/runs RUNS_DB_URL=sqlite:////data/runs/runs.sqlite DATA_DIR=/data/datasets STREAMLIT_SERVER_ADDRESS=0.0.0.0
VOLUME /data
EXPOSE 8501
HEALTHCHECK --start-period=30s CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=3)"
CMD ["python", "-m", "app"]
