"""The HTTP edge: an HTTP/1.1 channel, a Request that knows who the client is, the site, and our resources."""
