// The three pages of the relay port. Each asks its own figures of the relay every few seconds, and
// nothing of anybody else. Whatever comes is text: it is set by textContent and never read as HTML.
'use strict';

const EVERY_MS = 5000;        // between two answers
const AWAY_MS_MAX = 60000;    // while the relay does not answer, the wait doubles up to this
const PATIENCE_MS = 30000;    // for one answer
const ROWS_MAX = 500;         // of a table; the rest is counted
const CELLS_MAX = 3000;       // of the map: a grid of 5 degrees has fewer
const SAMPLES_MAX = 120;      // of a sparkline

const $ = id => document.getElementById(id);
const numbers = new Intl.NumberFormat('en');
const count = n => Number.isFinite(n) ? numbers.format(n) : '–';
const list = v => Array.isArray(v) ? v.filter(e => e && typeof e === 'object') : [];
const many = (n, one, more) => count(n) + ' ' + (n === 1 ? one : more || one + 's');

function set(id, text) {
  const e = $(id);
  if (e && e.textContent !== text) e.textContent = text; // what is selected stays selected
}

// Letters that are not seen, or that turn their neighbours around, are spelled out: two ids that
// differ should look different.
const UNSEEN = /[\u0000-\u001f\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e0fff}]/gu;
const name = v => String(v).replace(UNSEEN, c => '\\u{' + c.codePointAt(0).toString(16) + '}');

function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  if (!Number.isFinite(s)) return '–';
  if (d) return d + ' d ' + h + ' h';
  if (h) return h + ' h ' + m + ' min';
  return m ? m + ' min ' + s % 60 + ' s' : s + ' s';
}

function size(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let i = 0, n = bytes;
  if (!Number.isFinite(n)) return '–';
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return (i && n < 100 ? n.toFixed(1) : count(Math.round(n))) + ' ' + units[i];
}

const two = n => String(n).padStart(2, '0');
const day = d => d.getFullYear() + '-' + two(d.getMonth() + 1) + '-' + two(d.getDate());
const clock = d => two(d.getHours()) + ':' + two(d.getMinutes()) + ':' + two(d.getSeconds());

function when(unix) {
  const d = new Date(unix * 1000);
  return Number.isNaN(d.getTime()) ? '–' : day(d) + ' ' + clock(d);
}

// ---- tables ------------------------------------------------------------------------------------

// columns: {text(row), css, head, share(row)}. Rows are used again, so that a reader's selection and
// place outlast an update.
function fill(table, rows, columns, rest) {
  const body = $(table + '-table').tBodies[0];
  const shown = Math.min(rows.length, ROWS_MAX);

  while (body.rows.length > shown) body.deleteRow(-1);
  for (let i = 0; i < shown; i++) {
    const tr = body.rows[i] || blank(body, columns);
    columns.forEach((column, j) => {
      if (column.share) {
        tr.cells[j].firstChild.firstChild.style.width = percent(column.share(rows[i]));
        return;
      }
      const text = column.text(rows[i]);
      if (tr.cells[j].textContent !== text) tr.cells[j].textContent = text;
    });
  }
  set(table + '-more', !rows.length ? rest.none
    : rows.length > shown ? 'and ' + count(rows.length - shown) + ' more' : '');
}

function blank(body, columns) {
  const tr = body.insertRow();

  for (const column of columns) {
    const cell = document.createElement(column.head ? 'th' : 'td');
    if (column.head) cell.scope = 'row';
    if (column.css) cell.className = column.css;
    if (column.share) {
      cell.appendChild(document.createElement('div')).className = 'share';
      cell.firstChild.appendChild(document.createElement('span'));
    }
    tr.appendChild(cell);
  }
  return tr;
}

const percent = part => (Number.isFinite(part) ? Math.max(0, Math.min(1, part)) * 100 : 0).toFixed(1) + '%';

function filtered(id, rows, text) {
  const wanted = $(id).value.trim().toLowerCase();
  return wanted ? rows.filter(row => text(row).toLowerCase().includes(wanted)) : rows;
}

// ---- drawing -----------------------------------------------------------------------------------

function draw(parent, kind, attributes, text) {
  const e = document.createElementNS(parent.namespaceURI, kind);
  for (const key in attributes) e.setAttribute(key, attributes[key]);
  if (text !== undefined) e.textContent = text;
  return parent.appendChild(e);
}

const samples = {};
function spark(id, value) {
  const s = samples[id] || (samples[id] = []), svg = $(id);

  s.push(value);
  if (s.length > SAMPLES_MAX) s.shift();
  const top = Math.max(1, ...s), step = 120 / Math.max(1, s.length - 1);
  const path = svg.firstChild || draw(svg, 'path', {});
  path.setAttribute('d', s.map((v, i) => (i ? 'L' : 'M') + (i * step).toFixed(1) + ' ' +
    (26 - 24 * v / top).toFixed(1)).join('') + (s.length === 1 ? 'h120' : ''));
}

// ---- the pages ---------------------------------------------------------------------------------

const PEER = [
  { head: true, css: 'name', text: p => name(p.peer_id) },
  { css: 'name', text: p => name(p.network_id) },
  { text: p => name(p.via) },
  { text: p => ({ v4: 'IPv4', v6: 'IPv6' })[p.address_family] || name(p.address_family) },
  { css: 'n', text: p => String(Number(p.protocol_version)) },
  { css: 'when', text: p => when(p.connected_at) + ' (' + span(p.connected_secs) + ')' },
];
let before = null, rates = null;

// What went on since the answer before; a relay that was started anew begins from nothing.
function sample(s) {
  const over = before ? s.uptime_secs - before.uptime_secs : 0;
  const per = key => over > 0 ? Math.max(0, (s[key] - before[key]) / over) : 0;

  rates = { bytes: per('bytes_relayed'), stun: Math.round(per('stun_requests') * 10) / 10 };
  before = s;
  spark('spark-peers', s.connected_peers);
  spark('spark-rate', rates.bytes);
}

function overview(s, fresh) {
  const peers = list(s.peers), networks = list(s.networks).slice();
  const direct = peers.filter(p => p.via === 'direct').length;

  if (fresh) sample(s);
  set('status', name(s.status));
  set('version', 'version ' + name(s.version));
  set('uptime', span(s.uptime_secs));
  set('since', 'since ' + when(Date.now() / 1000 - s.uptime_secs));
  set('peers', count(s.connected_peers));
  set('vias', count(direct) + ' direct, ' + count(peers.length - direct) + ' by the relay');
  set('open', count(s.open_connections));
  set('reserved', many(s.active_reservations, 'reservation'));
  set('bytes', size(s.bytes_relayed));
  set('rate', size(rates.bytes) + '/s');
  set('punches', count(s.hole_punch_requests));
  set('punched', count(s.hole_punch_successes) + ' opened, ' + count(s.hole_punch_failures) + ' failed');
  set('stun', count(s.stun_requests));
  set('stun-rate', count(rates.stun) + ' a second');
  set('networks', count(networks.length));
  networks.sort((a, b) => b.peers - a.peers);
  set('largest', networks.length ? 'the largest has ' + many(networks[0].peers, 'peer') : '');
  const found = filtered('peers-filter', peers, p => name(p.peer_id) + '\n' + name(p.network_id));
  fill('peers', found, PEER, { none: peers.length ? 'No peer is like that.' : 'No peer is here.' });
  fill('networks', networks, [
    { head: true, css: 'name', text: n => name(n.network_id) },
    { css: 'n', text: n => count(n.peers) },
    { share: n => n.peers / s.connected_peers },
  ], { none: 'No network is here.' });
}

function dht(d) {
  const keys = list(d.keys);
  const found = filtered('keys-filter', keys, k => name(k.content_key));

  set('counted', many(d.total_keys, 'key') + ', reported by ' + many(d.reporting_peers, 'peer') +
    (d.truncated ? ', cut: there are more' : ''));
  set('made', 'Peers are asked once a minute; as of ' + when(d.generated_at) + '.');
  fill('keys', found, [
    { head: true, css: 'name', text: k => name(k.content_key) },
    { css: 'n', text: k => count(k.providers) },
    { css: 'n', text: k => count(k.reported_by) },
  ], { none: keys.length ? 'No key is like that.' : 'No peer has reported a key.' });
}

const degrees = (v, plus, minus) => Number(Math.abs(v)) + '°' + (v < 0 ? ' ' + minus : v > 0 ? ' ' + plus : '');
const x = lon => 2 * (lon + 180);
const y = lat => 2 * (90 - Math.max(-80, Math.min(88, lat)));

function map(m) {
  const cells = list(m.cells).filter(c => [c.lat, c.lon, c.count].every(Number.isFinite));
  const most = Math.max(1, ...cells.map(c => c.count));
  const group = $('cells');

  set('placed', count(m.located_peers) + ' of ' + many(m.total_peers, 'peer') + ' located, ' +
    count(m.unknown_peers) + ' unknown' + (m.total_peers && !m.located_peers
      ? ': this relay has no database of places, or its peers no public address' : ''));
  $('placed-share').style.width = percent(m.located_peers / m.total_peers);
  set('cell', String(Number(m.cell_deg)));
  group.replaceChildren();
  for (const c of cells.slice(0, CELLS_MAX)) {
    const dot = draw(group, 'circle', { cx: x(c.lon), cy: y(c.lat),
      r: (3 + 9 * Math.sqrt(c.count / most)).toFixed(1) });
    draw(dot, 'title', {}, many(c.count, 'peer') + ' around ' + degrees(c.lat, 'N', 'S') + ', ' +
      degrees(c.lon, 'E', 'W'));
  }
  fill('cells', cells.slice().sort((a, b) => b.count - a.count), [
    { text: c => degrees(c.lat, 'N', 'S') },
    { text: c => degrees(c.lon, 'E', 'W') },
    { css: 'n', text: c => count(c.count) },
  ], { none: 'No cell has a peer.' });
}

// Land, in bands of 5 degrees of latitude from 85 N southwards: from and to in degrees of longitude.
// Drawn by hand and from memory, to know where one is.
const LAND = [
  [-90, -62, -60, -20, 45, 60], [-120, -110, -105, -80, -70, -20, 12, 25, 60, 70, 95, 110, 140, 148],
  [-125, -103, -100, -75, -55, -22, 20, 30, 53, 58, 68, 142], [-166, -88, -80, -62, -53, -30, -24, -15, 13, 180, -180, -170],
  [-165, -93, -78, -65, -50, -42, -22, -14, 5, 18, 22, 180], [-162, -154, -135, -93, -78, -60, -7, -2, 6, 9, 11, 18, 22, 143, 156, 163],
  [-130, -82, -79, -57, -10, -6, -4, 1, 5, 140, 142, 144, 156, 160], [-125, -65, -59, -53, -4, 48, 53, 139, 142, 144],
  [-124, -70, -9, 3, 10, 15, 17, 28, 41, 49, 54, 133, 141, 145], [-123, -76, -9, -1, 14, 17, 20, 24, 27, 49, 54, 120, 126, 129, 136, 141],
  [-118, -80, -9, 12, 20, 23, 35, 120, 130, 136], [-115, -112, -109, -97, -82, -80, -13, 33, 35, 49, 54, 121],
  [-106, -97, -83, -76, -16, 37, 39, 58, 69, 90, 92, 115, 120, 122, -158, -155], [-104, -94, -91, -87, -74, -68, -16, 39, 43, 55, 73, 84, 94, 108, 120, 122],
  [-91, -83, -75, -62, -16, 43, 45, 51, 75, 80, 98, 109, 122, 125], [-84, -78, -77, -57, -13, 49, 80, 82, 99, 103, 115, 118, 122, 126],
  [-79, -50, 9, 46, 96, 104, 109, 118, 120, 124], [-80, -42, 9, 41, 101, 106, 110, 116, 120, 123, 131, 142],
  [-79, -35, 13, 39, 106, 115, 138, 150], [-77, -38, 13, 40, 48, 50, 131, 137, 142, 144],
  [-73, -39, 12, 37, 44, 50, 123, 146], [-70, -41, 14, 35, 44, 48, 114, 150], [-71, -48, 15, 32, 114, 153],
  [-71, -52, 18, 29, 115, 124, 134, 152], [-73, -58, 140, 150, 174, 178], [-74, -64, 145, 148, 170, 174],
  [-75, -66, 167, 170], [-74, -68], [], [], [-68, -62, 45, 85, 90, 145], [-100, -62, -10, 168], [-155, -62, -28, 165],
];

function world() {
  const land = $('land'), grid = $('grid');
  let dots = '';

  LAND.forEach((band, i) => {
    for (let lat = 85 - 5 * i - 1.25; lat > 80 - 5 * i; lat -= 2.5)
      for (let j = 0; j < band.length; j += 2)
        for (let lon = Math.ceil(band[j] / 2.5) * 2.5; lon < band[j + 1]; lon += 2.5)
          dots += 'M' + x(lon + 1.25) + ' ' + y(lat) + 'h0';
  });
  draw(land, 'path', { d: dots });
  for (let lon = -150; lon < 180; lon += 30) {
    draw(grid, 'path', { d: 'M' + x(lon) + ' 0V340', class: lon ? '' : 'main' });
    draw(grid, 'text', { x: x(lon) + 3, y: 9 }, degrees(lon, 'E', 'W'));
  }
  for (let lat = 60; lat >= -60; lat -= 30) {
    draw(grid, 'path', { d: 'M0 ' + y(lat) + 'H720', class: lat ? '' : 'main' });
    draw(grid, 'text', { x: 3, y: y(lat) - 3 }, degrees(lat, 'N', 'S'));
  }
}

// ---- asking ------------------------------------------------------------------------------------

const PAGES = {
  overview: { path: '/stats.json', show: overview },
  map: { path: '/map.json', show: map, once: world },
  dht: { path: '/dht.json', show: dht },
};
const page = PAGES[document.documentElement.dataset.page];
let last = null, failures = 0, due = 0, timer = 0, asking = false;

async function answer(path) {
  const stop = new AbortController();
  const patience = setTimeout(() => stop.abort(), PATIENCE_MS);

  try {
    const got = await fetch(path, { cache: 'no-store', credentials: 'omit', redirect: 'error', signal: stop.signal });
    if (!got.ok) throw new Error('status ' + got.status);
    const said = await got.json();
    if (said.schema_version !== 1) throw new Error('figures of another version');
    return said;
  } finally {
    clearTimeout(patience);
  }
}

function state(which, text) {
  document.documentElement.dataset.state = which;
  set('said', text);
}

async function ask() {
  const began = Date.now();
  let wait;

  if (asking) return;
  asking = true;
  try {
    last = await answer(page.path);
    page.show(last, true);
    failures = 0;
    const now = new Date();
    $('updated').dateTime = now.toISOString();
    set('updated', day(now) + ' ' + clock(now));
    state('ok', 'live');
    wait = Math.max(EVERY_MS, 20 * (Date.now() - began)); // whoever is slow to answer is asked less
  } catch (e) {
    wait = EVERY_MS * 2 ** Math.min(failures++, 10);
    state('away', 'the relay does not answer');
  }
  asking = false;
  wait = Math.min(wait, AWAY_MS_MAX);
  due = Date.now() + wait;
  clearTimeout(timer);
  timer = setTimeout(look, wait);
}

// A page that nobody sees asks nothing, and asks at once when it is seen again.
function look() {
  if (!document.hidden && Date.now() >= due - 50) ask();
}

function tick() {
  if (!document.hidden && due)
    set('next', asking ? 'Asking …' : (failures ? 'Asks again in ' : 'Next in ') +
      many(Math.max(0, Math.ceil((due - Date.now()) / 1000)), 'second') + '.');
}

for (const input of document.querySelectorAll('input'))
  input.addEventListener('input', () => last && page.show(last, false));
document.addEventListener('visibilitychange', look);
setInterval(tick, 1000);
if (page.once) page.once();
ask();
