"""Copies a buffer to the S3 server and back with boto3, from memory and into memory; prints both rates as JSON.

usage: boto3_copy.py REPORT PART_MB CONCURRENCY      REPORT: the output of `bench checkpoint --json`, for its size
"""

import io
import json
import os
import sys
import time

import boto3
from boto3.s3.transfer import TransferConfig

megabytes = json.loads(sys.argv[1])["state_mb"]
part, concurrency = int(sys.argv[2]) << 20, int(sys.argv[3])
config = TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=concurrency)
client = boto3.client("s3")
data = os.urandom(round(megabytes * 1e6))

start = time.perf_counter()
client.upload_fileobj(io.BytesIO(data), "bucket", "peer", Config=config)
upload = time.perf_counter() - start

received = io.BytesIO()
start = time.perf_counter()
client.download_fileobj("bucket", "peer", received, Config=config)
restore = time.perf_counter() - start

assert received.getvalue() == data, "boto3 returned different bytes"
client.delete_object(Bucket="bucket", Key="peer")
print(json.dumps({"peer": f"boto3 {boto3.__version__}", "state_mb": megabytes,
                  "upload_mb_s": megabytes / upload, "restore_mb_s": megabytes / restore}))
