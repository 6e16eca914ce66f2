"""The page of `judge report`: read (`collect`), weigh (`doubts`, `compare`), draw (`bars`, `page`)."""
