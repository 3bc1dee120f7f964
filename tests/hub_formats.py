"""Reads a model card and files of `.eval_results` with huggingface_hub, and prints what it finds as JSON.

    hub_formats.py README.md [EVAL_RESULTS.yaml ...]
"""

import dataclasses
import json
import sys

import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

card, *files = sys.argv[1:]
# An index that huggingface_hub cannot read is left as it is, without an error.
results = ModelCard.load(card).data.eval_results
entries = [entry for file in files for entry in parse_eval_result_entries(yaml.safe_load(open(file)))]
print(json.dumps({
    "index": [dataclasses.asdict(result) for result in results],
    "eval_results": [dataclasses.asdict(entry) for entry in entries],
}))
