"""What became of each call of a client: one line of JSON a call, read by `cargo xtask clients`.

A call is `ok`, `refused` as the real cloud (or the client itself) refuses it, or `501`: the simulated
cloud does not serve it and names it. Anything else is `failed`.
"""

import asyncio
import inspect
import json
import sys
import time


def told(error):
    """What an exception says, with the answer that it is about."""
    answer = getattr(error, "response", None)
    body = getattr(answer, "text", "") or getattr(error, "resp", "")
    return " ".join(f"{type(error).__name__}: {error} {body}".split())


def is_not_simulated(text):
    return any(words in text for words in ("not simulated", "not_simulated", "501 Server Error"))


class Report:
    def __init__(self):
        self.driven = set()
        self.failed = False
        self.sim = json.loads(sys.argv[1])
        # Seconds before each call, for clouds that limit the rate of calls.
        self.pace = 0.0

    def tell(self, name, verdict, said=""):
        self.driven.add(name.split(" ")[0])
        self.failed |= verdict == "failed"
        print(json.dumps({"call": name, "verdict": verdict, "said": said[:300]}), flush=True)

    def call(self, name, make, refused=None, check=None):
        """Makes one call, and returns its value. With `refused`, only a refusal with these words is
        right; with `check`, only a value of which it holds."""
        time.sleep(self.pace)
        try:
            value = make()
            if inspect.isawaitable(value):
                value = asyncio.run(self.awaited(value))
        except (Exception, SystemExit) as error:  # the clients have exceptions of their own
            text = told(error)
            if is_not_simulated(text):
                self.tell(name, "501", text)
            elif refused and refused in text:
                self.tell(name, "refused", text)
            else:
                self.tell(name, "failed", text)
            return None
        if refused:
            self.tell(name, "failed", f"was to be refused: {value!r}")
        elif check and not check(value):
            self.tell(name, "failed", f"answered {value!r}")
        else:
            self.tell(name, "ok")
        return value

    @staticmethod
    async def awaited(value):
        return await value

    def until(self, name, make, wanted):
        """Repeats a call until its value is as wanted, and reports it once."""
        value = None
        for _ in range(240):
            value = make()
            if wanted(value):
                self.tell(name, "ok")
                return value
            time.sleep(0.25)
        self.tell(name, "failed", f"still {value!r}")
        return value

    def end(self, names=()):
        """Ends the script. Of these calls of the client, none may be left out."""
        for name in sorted(set(names) - self.driven):
            self.tell(name, "failed", "the client has this call, and it was not made")
        sys.exit(1 if self.failed else 0)
