# The official image, and what the DAGs need besides, in the versions that were tested.
FROM apache/airflow:3.3.2

COPY requirements.txt requirements.lock /tmp/project/
RUN grep -E '^(langgraph|msgpack|msgspec|ormsgpack|psycopg|pycryptodome|zstandard)[a-z-]*==' \
      /tmp/project/requirements.lock > /tmp/project/constraints.txt \
    && pip install --no-cache-dir "apache-airflow==${AIRFLOW_VERSION}" \
      --constraint /tmp/project/constraints.txt --requirement /tmp/project/requirements.txt

# Exports and frozen sources: made here, so that a volume mounted on it belongs to Airflow.
RUN mkdir -m 0770 /opt/airflow/exports
