/** A request as commands that do the same. */
const KEY_VARIABLE = "AUDIOCALM_API_KEY";

export function curlOf(url, body, hasKey) {
  const key = hasKey ? ` \\\n  -H "Authorization: Bearer $${KEY_VARIABLE}"` : "";
  return `curl -sS -N ${url} \\\n  -H 'Content-Type: application/json'${key} \\\n`
    + `  -d ${quoted(JSON.stringify(body))} \\\n  --output audio.wav`;
}

export function pythonOf(url, body, hasKey) {
  // Strings and numbers of JSON are those of Python; a body has nothing else.
  const fields = Object.entries(body).map(
    ([name, value]) => `    ${JSON.stringify(name)}: ${JSON.stringify(value)},\n`).join("");
  const key = `headers = {"Authorization": "Bearer " + os.environ["${KEY_VARIABLE}"]}\n`;
  return `${hasKey ? "import os\n\n" : ""}import httpx\n\nbody = {\n${fields}}\n${hasKey ? key : ""}`
    + `url = ${JSON.stringify(url)}\n`
    + `with httpx.stream("POST", url, json=body, ${hasKey ? "headers=headers, " : ""}timeout=None) as response:\n`
    + "    response.raise_for_status()\n"
    + "    with open(\"audio.wav\", \"wb\") as file:\n"
    + "        for chunk in response.iter_bytes():\n"
    + "            file.write(chunk)\n";
}

/** A word of a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
