# The official image, and what the DAGs need besides, in the versions that were tested.
FROM apache/airflow:3.3.2

COPY requirements.txt requirements-s3.txt requirements.lock /tmp/project/
RUN grep -E '^(aiobotocore|boto3|botocore|langgraph|msgpack|msgspec|ormsgpack|psycopg|pybase64|pycryptodome|s3fs|zstandard)[a-z-]*==' \
      /tmp/project/requirements.lock > /tmp/project/constraints.txt \
    && pip install --no-cache-dir "apache-airflow==${AIRFLOW_VERSION}" \
      --constraint /tmp/project/constraints.txt --requirement /tmp/project/requirements.txt \
      --requirement /tmp/project/requirements-s3.txt

# Exports and frozen sources, and what a worker fetches of them: made here, so that a volume mounted on
# one of these belongs to Airflow.
RUN mkdir -m 0770 /opt/airflow/exports /opt/airflow/scratch
