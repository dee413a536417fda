#![allow(warnings)]
use attention_tokens::{datasets::*, experiments::*, notebook::*, prelude::*};
fn main() -> Result<(), Error> {
    println!("===== cell 02");
    let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    let prompt = "When Mary and John went to the store, John gave a drink to";
    let answers = [model.to_single_token(" Mary")?, model.to_single_token(" John")?];
    println!("===== cell 03");
    let options = NeedOptions { answers: Some(answers), ..Default::default() };
    let name_head = said_written_needed(&model, prompt, 3, 5, options.clone())?;
    let shown = name_head.plot()?;
    shown.evcxr_display();
    println!("===== cell 04");
    let shown = name_head.top(6);
    shown.evcxr_display();
    println!("===== cell 05");
    let early_head = said_written_needed(&model, prompt, 0, 6, options.clone())?;
    let shown = early_head.top(6);
    shown.evcxr_display();
    println!("===== cell 06");
    let letters = Gpt2::from_pretrained("letters", LoadOptions::default())?;
    let induction = said_written_needed(&letters, "kXbq7ZkXbq7Z", 1, 2, NeedOptions::default())?;
    let shown = induction.plot()?;
    shown.evcxr_display();
    println!("===== cell 07");
    let twice = RepeatedTokens { len: 12, batch: 4, ..RepeatedTokens::default() }.prompts(letters.config())?;
    let of_letters = word_agreement(&letters, twice, AgreementOptions::default())?;
    let shown = of_letters.heads_table();
    shown.evcxr_display();
    println!("===== cell 08");
    let prompts: Vec<String> = varied_prompts().into_iter().step_by(25).take(4).collect();
    let agreement = word_agreement(&model, prompts.clone(), AgreementOptions::default())?;
    let untrained = model.with_random_weights(1)?;
    let control = word_agreement(&untrained, prompts.clone(), AgreementOptions::default())?;
    let shown = agreement.table_with_control(&control);
    shown.evcxr_display();
    println!("===== cell 09");
    let shown = agreement.table();
    shown.evcxr_display();
    println!("===== cell 10");
    let mut lines = Vec::new();
    for projection in [Projection::Notebook, Projection::Output, Projection::Ov, Projection::Matched] {
        let said = Reading::from(projection).unembed_bias(false);
        let options = AgreementOptions { said, needs: false, ..Default::default() };
        let (own, control) = (
            word_agreement(&model, prompts.clone(), options.clone())?,
            word_agreement(&untrained, prompts.clone(), options)?,
        );
        let mean = |agreement: &WordAgreement| {
            let n = agreement.heads.len() as f64;
            let sum = |of: fn(&WithChance) -> f64| {
                agreement.heads.iter().map(|head| of(&head.said_is_written)).sum::<f64>() / n
            };
            format!("{:.3}, by chance {:.3}", sum(|x| x.observed), sum(|x| x.by_chance))
        };
        lines.push(format!("{said}: {}; untrained {}", mean(&own), mean(&control)));
    }
    println!("{}", lines.join("\n"));
    println!("===== cell 11");
    let bill = receipt(&model, prompt, answers, ReceiptOptions { share: 0.6, ..Default::default() })?;
    let shown = bill.table();
    shown.evcxr_display();
    println!("===== cell 12");
    let shown = bill.plot();
    shown.evcxr_display();
    println!("===== cell 13");
    let mut parts = bill.largest(8);
    parts.extend([
        Contributor::Head { layer: 3, head: 5 },
        Contributor::Cell { layer: 0, head: 6, key: 10 },
        Contributor::Head { layer: 0, head: 6 },
    ]);
    let shown = bill.strike(&parts)?.table();
    shown.evcxr_display();
    Ok(())
}
