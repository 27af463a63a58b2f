"""The configuration of HAProxy as data: typed words, the serializer, and a parser that reads the result back."""
