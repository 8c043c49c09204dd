// js-libp2p 3 wants Node 22; Promise.withResolvers is all that Node 20 lacks of it. A module of its
// own, because imports run before the importing module's first statement.
if (Promise.withResolvers == null) {
  Promise.withResolvers = function () {
    let resolve, reject
    const promise = new Promise((...fns) => { [resolve, reject] = fns })
    return { promise, resolve, reject }
  }
}
