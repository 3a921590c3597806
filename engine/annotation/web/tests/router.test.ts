// Addresses go both ways; tokens are taken from whatever somebody pastes.

import { expect, it } from 'vitest';
import { hrefOf, parseRoute, tokenOf, type Route } from '../src/lib/router';

it.each<[string, Route]>([
  ['/', { view: 'campaigns' }],
  ['/join', { view: 'join' }],
  ['/annotate/street-1a2b', { view: 'annotate', campaign: 'street-1a2b' }],
  ['/review/a%20b', { view: 'review', campaign: 'a b' }],
  ['/lead/x', { view: 'lead', campaign: 'x' }],
  ['/lead/people', { view: 'people' }],
])('%s is a view and its address', (path, route) => {
  expect(parseRoute(path)).toEqual(route);
  if (route.view !== 'unknown') expect(hrefOf(route)).toBe(path);
});

it.each(['/annotate', '/annotate/a/b', '/elsewhere', '/lead/%', '/join/x'])(
  '%s is not a view',
  (path) => expect(parseRoute(path).view).toBe('unknown'),
);

it.each([
  ['#token=ab-C_1', 'ab-C_1'],
  ['http://host:8765/join#token=abc', 'abc'],
  ['  abc  ', 'abc'],
  ['#token=a%2Eb', 'a.b'],
  ['', null],
  ['two words', null],
  ['http://host/join', null],
  ['<script>', null],
])('%j holds the token %j', (text, token) => {
  expect(tokenOf(text)).toBe(token);
});
