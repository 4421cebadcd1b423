#!/bin/sh
echo layer
