import assert from 'node:assert/strict';
import { test } from 'node:test';
import { greeting } from '../lib/greeting';

test('the greeting fits on one line', () => {
  assert.ok(greeting.length > 0 && greeting.length <= 80);
  assert.ok(!greeting.includes('\n'));
});
