"""Calls a target so many times a second and prints a line of JSON for each answer:

    python client.py TARGET CALLS_A_SECOND

GRPC_XDS_BOOTSTRAP names its bootstrap.
"""

import json
import sys
import threading
import time

import grpc

PATIENCE = 5  # seconds for a call

printing = threading.Lock()


def tell(call):
    try:
        line = {"from": call.result().decode()}
    except grpc.RpcError as error:
        line = {"error": f"{error.code()}: {error.details()}"}
    with printing:
        print(json.dumps(line), flush=True)


def main(target, rate):
    channel = grpc.insecure_channel(target)
    who = channel.unary_unary("/stellmap.test.Echo/Who")
    while True:
        who.future(b"", timeout=PATIENCE).add_done_callback(tell)
        time.sleep(1 / rate)


main(sys.argv[1], float(sys.argv[2]))
