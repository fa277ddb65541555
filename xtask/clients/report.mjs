// What became of each call of a client, as report.py says it.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

export class Report {
  constructor() {
    this.driven = new Set()
    this.failed = false
    this.sim = JSON.parse(process.argv[2])
    this.packages = process.argv[3]
  }

  // The client's package, from the folder that it was installed into.
  client(name) {
    const require = createRequire(`${this.packages}/x.js`)
    return import(pathToFileURL(require.resolve(name)))
  }

  tell(name, verdict, said = '') {
    this.driven.add(name.split(' ')[0])
    this.failed ||= verdict === 'failed'
    console.log(JSON.stringify({ call: name, verdict, said: said.slice(0, 300) }))
  }

  async call(name, make, { refused, check } = {}) {
    let value
    try {
      value = await make()
    } catch (error) {
      const text = `${error}${error.cause ? ` (${error.cause})` : ''}`.replace(/\s+/g, ' ')
      if (/not simulated|not_simulated/.test(text)) this.tell(name, '501', text)
      else if (refused && text.includes(refused)) this.tell(name, 'refused', text)
      else this.tell(name, 'failed', text)
      return undefined
    }
    if (refused) this.tell(name, 'failed', `was to be refused: ${JSON.stringify(value)}`)
    else if (check && !check(value)) this.tell(name, 'failed', `answered ${JSON.stringify(value)}`)
    else this.tell(name, 'ok')
    return value
  }

  end(names = []) {
    for (const name of names.filter((name) => !this.driven.has(name))) {
      this.tell(name, 'failed', 'the client has this call, and it was not made')
    }
    process.exit(this.failed ? 1 : 0)
  }
}
