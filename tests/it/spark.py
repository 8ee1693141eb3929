"""Spark with Delta, for tests: runs the SQL of each line that it is given (a JSON text), until there are no more.

Answers each with a line: `{"rows": [[text or null, ...], ...]}`, or `{"error": text}`. `ALLUVIUM_SPARK_JARS` names Delta's jars,
by commas. Timestamps are UTC. Tables are named by their folder: delta.`/lake/silver/rows`.
"""

import json
import os
import sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # What Spark itself prints is no answer.


def session():
    from pyspark.sql import SparkSession

    settings = {
        "spark.jars": os.environ["ALLUVIUM_SPARK_JARS"],
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        # Else a filter for a day of October 1582 that only the proleptic calendar has is pushed down as another day.
        "spark.sql.datetime.java8API.enabled": "true",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "1g",
        # Tables of tests are small: a task costs more than its rows.
        "spark.sql.shuffle.partitions": "1",
        "spark.databricks.delta.snapshotPartitions": "1",
    }
    builder = SparkSession.builder.master("local[1]").appName("alluvium tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    started = builder.getOrCreate()
    started.sparkContext.setLogLevel("ERROR")
    return started


def text(value):
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    return str(value)


spark = session()
for line in sys.stdin:
    try:
        rows = spark.sql(json.loads(line)).collect()
        answer = {"rows": [[text(value) for value in row] for row in rows]}
    except Exception as error:  # What Spark refuses is an answer.
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=answers, flush=True)
