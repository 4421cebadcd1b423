"""Checks a deployed environment: the greeting must be readable where the stack
says it is, and the orders must not be those of another environment.

aphex gives the stack outputs as JSON files: those of this environment in
APHEX_OUTPUTS_FILE, those of the environments before it in APHEX_OUTPUTS_DIR,
too.
"""

import json
import os
import pathlib
import subprocess
import sys

environment = os.environ["APHEX_ENVIRONMENT"]
outputs = json.loads(pathlib.Path(os.environ["APHEX_OUTPUTS_FILE"]).read_text(encoding="utf-8"))

name = outputs["shop-api"]["GreetingParameter"]
answer = subprocess.run(
    ["aws", "ssm", "get-parameter", "--name", name, "--query", "Parameter.Value", "--output", "text"],
    check=True,
    capture_output=True,
    text=True,
)
value = answer.stdout.strip()
print(f"{environment}: {name} = {value}")
if not value:
    sys.exit(1)

orders = outputs["shop-data"]["OrdersUrl"]
for file in sorted(pathlib.Path(os.environ["APHEX_OUTPUTS_DIR"]).glob("*.json")):
    if file.stem == environment:
        continue
    other = json.loads(file.read_text(encoding="utf-8"))
    if other.get("shop-data", {}).get("OrdersUrl") == orders:
        sys.exit(f"{environment}: its orders are those of {file.stem}: {orders}")
    print(f"{environment}: orders of its own, not those of {file.stem}")
