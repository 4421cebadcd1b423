"""Checks a deployed environment: the greeting must be readable where the stack says it is.

aphex gives the stack outputs as a JSON file, whose path is in APHEX_OUTPUTS.
"""

import json
import os
import subprocess
import sys

with open(os.environ["APHEX_OUTPUTS"], encoding="utf-8") as file:
    outputs = json.load(file)

name = outputs["shop-api"]["GreetingParameter"]
answer = subprocess.run(
    ["aws", "ssm", "get-parameter", "--name", name, "--query", "Parameter.Value", "--output", "text"],
    check=True,
    capture_output=True,
    text=True,
)
value = answer.stdout.strip()
print(f"{os.environ['APHEX_ENVIRONMENT']}: {name} = {value}")
sys.exit(0 if value else 1)
