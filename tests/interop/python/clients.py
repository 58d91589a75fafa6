class Pool:
    def __init__(self, b): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    connect = None
