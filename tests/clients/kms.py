"""A till of the oldest kind: encrypts with KMS itself. python kms.py url shop [alias prefix]. Needs boto3."""
import base64, http.client, json, random, sys, time
from urllib.parse import urlsplit
import boto3

url, shop = urlsplit(sys.argv[1].rstrip("/")), sys.argv[2]
prefix = sys.argv[3] if len(sys.argv) > 3 else ""
message_id = f"{random.randrange(10**18)}-{time.strftime('%Y%m%d')}"

sale = {"sales": [{"item_no": "98", "gross_number": 1, "gross_turnover": "18.95"}]}
content = boto3.client("kms").encrypt(
    KeyId=f"alias/{prefix}{shop}", EncryptionAlgorithm="RSAES_OAEP_SHA_256", Plaintext=json.dumps(sale).encode())
body = {"shop_id": shop, "message_id": message_id, "content_base64": base64.b64encode(content["CiphertextBlob"]).decode()}

# No content type at all: API Gateway then hands the body on in base64, and the shop must not mind.
connection = http.client.HTTPConnection(url.netloc) if url.scheme == "http" else http.client.HTTPSConnection(url.netloc)
connection.request("POST", f"{url.path}/shop", json.dumps(body))
response = connection.getresponse()
answer = response.status, json.load(response)
if answer != (200, "OK"):
    sys.exit(f"unexpected: {answer}")
print(message_id)
