package worker

import (
	"context"
	"errors"
	"io"
)

var errSoon = errors.New("worker: not built yet")

type Option func(*Client)

type Client struct{ socket string }

func NewClient(socket string, opts ...Option) *Client { return &Client{socket: socket} }

func (c *Client) Ping(ctx context.Context) (Info, error) { return Info{}, errSoon }

func (c *Client) Exec(ctx context.Context, cmd Command, output io.Writer) (Exit, error) {
	return Exit{}, errSoon
}

func (c *Client) List(ctx context.Context, dir string) ([]Entry, error) { return nil, errSoon }

func (c *Client) ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error) {
	return nil, errSoon
}

func (c *Client) WriteTree(ctx context.Context, dir string, tree io.Reader, opts WriteOptions) error {
	return errSoon
}

func (c *Client) Remove(ctx context.Context, dir string, paths []string) error { return errSoon }

func (c *Client) Stat(ctx context.Context, paths []string) ([]Entry, error) { return nil, errSoon }

func (c *Client) LookPath(ctx context.Context, names []string, env map[string]string) (map[string]string, error) {
	return nil, errSoon
}
