"""An Airbyte source for tests: spec, check, discover and read, in plain Python so that it starts at once.

Its configuration: `rows` in all, a state each `state_every`, `pause_s` after each state, `fail_at` a row (with
`fail_message`), `kind` of state (STREAM, GLOBAL or LEGACY), and `silent` to print nothing at all.
"""

import json
import sys
import time
from pathlib import Path


def say(**message):
    print(json.dumps(message), flush=True)


def option(name):
    if name not in sys.argv:
        return None
    return json.loads(Path(sys.argv[sys.argv.index(name) + 1]).read_bytes())


def position(state):
    if not state:
        return 0
    if isinstance(state, dict):
        return state["at"]
    if state[0]["type"] == "GLOBAL":
        return state[0]["global"]["stream_states"][0]["stream_state"]["at"]
    return state[0]["stream"]["stream_state"]["at"]


def state_of(kind, at):
    stream = {"stream_descriptor": {"name": "sales"}, "stream_state": {"at": at}}
    if kind == "LEGACY":
        return {"data": {"at": at}}
    if kind == "GLOBAL":
        return {"type": "GLOBAL", "global": {"stream_states": [stream]}}
    return {"type": "STREAM", "stream": stream, "sourceStats": {"recordCount": 1.0}}


def read(config, at):
    prefix = config.get("prefix", "sale")
    for number in range(at, config["rows"]):
        if number == config.get("fail_at"):
            error = {
                "message": config["fail_message"],
                "failure_type": config.get("failure_type", "system_error"),
            }
            say(type="TRACE", trace={"type": "ERROR", "emitted_at": 0, "error": error})
            sys.exit(1)
        data = {
            "id": f"{prefix}-{number}",
            "shop": {"code": f"d{number % 7}", "tags": ["a", 1]},
            "sku": number % 5,
            "pieces": -1 if number in config.get("bad", ()) else 1 + number % 3,
            "paid": 2.5,
            "sold_at": "2017-03-01T10:00:00Z",
        }
        say(type="RECORD", record={"stream": "sales", "data": data, "emitted_at": 1_700_000_000_000})
        if (number + 1) % config.get("state_every", 100) == 0:
            say(type="STATE", state=state_of(config.get("kind", "STREAM"), number + 1))
            time.sleep(config.get("pause_s", 0))
    if config["rows"] > at:
        say(type="STATE", state=state_of(config.get("kind", "STREAM"), config["rows"]))


def main():
    command, config = sys.argv[1], option("--config") or {}
    if config.get("silent"):
        print("I am no source", file=sys.stderr)
        sys.exit(3)
    print("starting", flush=True)  # a line that is no message is the source's log
    if command == "spec":
        say(type="SPEC", spec={"connectionSpecification": {"properties": {"rows": {"type": "integer"}}}})
    elif command == "check":
        good = isinstance(config.get("rows"), int)
        status = {"status": "SUCCEEDED"} if good else {"status": "FAILED", "message": "rows must be a number"}
        say(type="CONNECTION_STATUS", connectionStatus=status)
    elif command == "discover":
        shop = {"type": "object", "properties": {"code": {"type": "string"}, "tags": {"type": "array"}}}
        names = ("id", "sku", "pieces", "paid", "sold_at")
        schema = {"properties": {"shop": shop, **{name: {"type": ["null", "string"]} for name in names}}}
        modes = config.get("modes", ["full_refresh", "incremental"])
        say(
            type="CATALOG",
            catalog={"streams": [{"name": "sales", "json_schema": schema, "supported_sync_modes": modes}]},
        )
    elif command == "read":
        read(config, position(option("--state")))


main()
