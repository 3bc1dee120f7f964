"""Asks a running `laps-zoo serve` with the clients of others: the package `openai`, and the parser of `prometheus-client`.

Usage: http_clients.py URL IMAGE
"""

import base64
import sys
import urllib.request

import numpy as np
import openai
from prometheus_client.openmetrics.parser import text_string_to_metric_families

url, image = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

texts = ["a red circle", "two green squares and a triangle"]
# The client asks for base64 and decodes it, unless it is told otherwise.
encoded = client.embeddings.create(model="shapes_vit", input=texts)
floats = client.embeddings.create(model="shapes_vit", input=texts, encoding_format="float")
vectors = [np.array(row.embedding, dtype=np.float32) for row in encoded.data]
assert [row.index for row in encoded.data] == [0, 1]
for vector, row in zip(vectors, floats.data):
    assert np.array_equal(vector, np.array(row.embedding, dtype=np.float32))
    # Norm 1 in single precision.
    assert abs(np.linalg.norm(vector) - 1) < 1e-5
assert encoded.usage.total_tokens == encoded.usage.prompt_tokens > 4

sized = client.embeddings.create(model="shapes_vit", input=texts[0], dimensions=len(vectors[0]), user="a user")
# Another batch changes the last bits.
assert np.allclose(sized.data[0].embedding, vectors[0], atol=1e-5)

data = base64.b64encode(open(image, "rb").read()).decode()
picture = client.embeddings.create(model="shapes_vit", input=f"data:image/png;base64,{data}")
assert len(picture.data[0].embedding) == len(vectors[0])

for arguments, kind in [
    ({"model": "text-embedding-3-small", "input": "a"}, openai.NotFoundError),
    ({"model": "shapes_vit", "input": "circle " * 80}, openai.UnprocessableEntityError),
    ({"model": "shapes_vit", "input": [[1, 2, 3]]}, openai.UnprocessableEntityError),
    ({"model": "shapes_vit", "input": "a", "dimensions": 3}, openai.UnprocessableEntityError),
]:
    try:
        client.embeddings.create(**arguments)
    except kind as error:
        assert error.body["message"], error
    else:
        raise AssertionError(f"{arguments} is answered")

with urllib.request.urlopen(f"{url}/metrics") as answer:
    families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
requests = families["laps_zoo_http_requests"].samples
embeddings = [sample for sample in requests if sample.labels == {"endpoint": "/v1/embeddings", "status": "200"}]
assert [sample.value for sample in embeddings] == [4.0], requests
assert families["laps_zoo_http_request_seconds"].type == "histogram"
print("ok")
