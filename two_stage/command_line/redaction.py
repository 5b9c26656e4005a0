"""What is written or printed holds no secret: *** stands where one stood."""

import re
from typing import Any

SECRET = "***"  # stands where a secret stood
SECRET_NAME = re.compile(r"(?:.*_)?(?:token|api_?key|password|secret)", re.IGNORECASE)
SECRETS = {
    re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{20,}"): SECRET,  # the Hub's have 34 letters
    re.compile(r"(://[^/\s:@?#]*:)[^/\s?#]*@"): rf"\1{SECRET}@",  # https://user:password@host
    re.compile(r"(https?://)[^/\s:@?#]+@"): rf"\1{SECRET}@",  # https://token@host
    # in an address, whatever the parameter is called that holds it; elsewhere a lone password=…
    re.compile(r"([?&][\w.%-]*(?:token|key|secret|password|signature|credential)=)[^&\s\"'#;]+", re.IGNORECASE): (
        rf"\1{SECRET}"
    ),
    re.compile(r"((?<![\w-])(?:token|api_?key|password|secret)=)[^&\s\"'#;]+", re.IGNORECASE): rf"\1{SECRET}",
}


def redacted(text: str) -> str:
    """The text with *** for what looks like a secret; once redacted, it does not change any more.

    Args:
        text: that is to be written or printed.

    Returns:
        The text without tokens of the Hub, passwords and tokens within addresses (`user:…@host`, `?access_token=…`),
        and values of `token=`, `api_key=`, `password=` and `secret=`. A secret of any other form is not known for one.
    """
    for pattern, instead in SECRETS.items():
        text = pattern.sub(instead, text)
    return text


def redacted_values(value: Any) -> Any:
    """The same data with every text in it redacted, keys among them, and whole what a key calls a token or password.

    Args:
        value: what JSON or YAML can hold.

    Returns:
        A copy; two recipes that differ in their secrets alone have equal ones.
    """
    if isinstance(value, dict):
        return {
            redacted_values(key): SECRET
            if isinstance(key, str) and isinstance(item, str) and SECRET_NAME.fullmatch(key)
            else redacted_values(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted_values(item) for item in value]
    return redacted(value) if isinstance(value, str) else value
