"""Flags that want to be parsed before they are read, as absl's do."""


class _Flags:
    parsed = False

    def is_parsed(self):
        return self.parsed

    def __call__(self, words):
        self.parsed = True


FLAGS = _Flags()
